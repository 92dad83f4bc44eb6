"""What a run tells people: journal, progress, logs, outcome, table and notifications."""

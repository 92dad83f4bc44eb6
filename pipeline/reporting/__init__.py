"""What a run reports: journal, progress, logs, outcome, tables and notifications."""

"""BigQuery on google-cloud-bigquery: a month is one free load job into its partition, then a row in the ledger."""

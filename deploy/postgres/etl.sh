#!/bin/bash
# PostgreSQL's image runs this once, when its volume is empty. It creates an ordinary role for the pipeline and its database.
# The superuser has no password afterwards: docker compose exec postgres psql --username postgres
set -e
psql --set ON_ERROR_STOP=1 --quiet --no-psqlrc --username "$POSTGRES_USER" --dbname postgres <<'SQL'
\getenv role ETL_ROLE
\getenv password ETL_PASSWORD
\getenv database ETL_DATABASE
CREATE ROLE :"role" LOGIN NOSUPERUSER PASSWORD :'password';
CREATE DATABASE :"database" OWNER :"role" ENCODING 'UTF8' TEMPLATE template0;
ALTER ROLE CURRENT_USER PASSWORD NULL;
SQL

"""What each flow does, as plain functions: no Prefect, no command line."""

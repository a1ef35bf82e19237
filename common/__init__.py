"""What every program needs and nothing about speech: errors in one line, output directories, retries, tables."""

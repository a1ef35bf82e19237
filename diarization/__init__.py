"""What `diarize.py` is made of: models to run, formats to write, pictures, data sets."""

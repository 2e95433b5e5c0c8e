"""Where images come from: folders and S3 prefixes, webdataset tars, Parquet files."""

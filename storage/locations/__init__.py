"""Where bytes lie: local folders and S3 prefixes behind one door, with create-if-absent."""

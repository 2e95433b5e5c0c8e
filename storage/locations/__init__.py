"""Where bytes lie: local folders and S3 prefixes behind one interface, with create-if-absent."""

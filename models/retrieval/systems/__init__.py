"""The systems that rank, one file each: its methods, and the query features that they bring."""

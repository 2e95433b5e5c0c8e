"""Files that circulate in the field, read into our tables and written from them."""

"""Files that tests add to a copy of the source tree; nothing imports them from here."""

"""A synthetic city, or a loaded one, seen by satellites: every source the other stages ask for, with its truth."""

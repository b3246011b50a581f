"""The networks: frozen ones in the layout of their published files, and the Delta Mapper."""

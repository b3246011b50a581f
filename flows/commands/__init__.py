"""One module per command of `deltaedit`; each imports what it runs only when it runs."""

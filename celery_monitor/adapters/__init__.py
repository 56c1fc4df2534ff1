"""One module or package per technology. They do not import each other; foreign exceptions do not leave them."""

"""One module or package per technology. They do not import each other, and translate the exceptions of libraries."""

"""The loops. They know the ports and the core only; no technology is named here."""

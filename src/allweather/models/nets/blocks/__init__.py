"""Parts that several network families share."""

"""HTML pages of one file and their figures: readable offline, light and dark, safe to send around."""

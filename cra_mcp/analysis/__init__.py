"""Looking at policies as a whole: what is wrong with them, and what a change of them changes."""

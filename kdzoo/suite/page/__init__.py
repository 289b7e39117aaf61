"""A bench as one page, and its charts as files."""

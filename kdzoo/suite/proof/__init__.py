"""Rows that prove themselves: runs trained again, compared with reference points, merged and handed in."""

"""`kdzoo distill`: one student for a folder of images."""

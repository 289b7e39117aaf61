"""`kdzoo distill`: the short way for a person with a folder of images."""

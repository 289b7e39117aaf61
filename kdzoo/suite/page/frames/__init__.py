"""The numbers of each chart as a frame, a row a mark, from the tables of `suite/report` and the files of its runs."""

"""Charts as Vega-Lite specifications: one file a kind, frame -> altair chart, the same for the page and for `kdzoo plot`."""

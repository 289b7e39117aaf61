"""`kdzoo export`: a trained student in a form that runs elsewhere, with the preprocessing that it was trained with."""

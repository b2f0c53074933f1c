"""What every method is made of: the contract, its config fields, raters and masks."""

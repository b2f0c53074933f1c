"""MS lesions in MRI: scans of ISBI 2015, and simulated ones."""

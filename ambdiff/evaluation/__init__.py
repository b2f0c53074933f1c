"""From samples to figures: the cases of an evaluation, its scores beside baselines, and the files it writes."""

"""What `import ambdiff` gives beside `ambdiff.scoring`: weights as an object that takes arrays and files.

images.py      an array that a caller gives -> a Volume, its values checked for what they can mean
choices.py     counts, seeds and points that a caller gives
prediction.py  Prediction: a result of the flow with save, score and its page in a notebook
model.py       load, Model.sample, Model.predict: through the flow of `ambdiff.prediction`, as the command
"""

"""A stranger's images to masks, each step in a room of its own:

  find    inputs.py        what there is to predict, in a file or a folder and all below it -> Input
  read    inputs.py        by ambdiff.data.files, whatever the kind of file -> Volume
  plan    crops.py         values in the range of the weights (values.py), points or tiles (body.py) as crops -> Plan
  sample  crop_sampler.py  N masks of each crop, crops of many images together -> [N, S, S]
  merge   merge.py         crops back into slices, masks held as bits (samples.py) -> Samples
  follow  follow.py        around points of a volume, what hangs together in space -> Samples
  say     finding.py       distinct answers, areas, volumes, diameters -> Finding
          result.py        all of an image, and maps -> Result
  write   output.py        files in the image's own geometry (nifti.py, segmentation.py, page.py)

flow.py leads images through them, watch.py tells how far they are, unfinished.py keeps what a kill would cost;
earlier.py knows what lies in an output already, claims.py who is at work in it, outcome.py lists it. The command is
ambdiff.predict.
"""

"""The kit that every page is made of.

frame     the document around a page's body: head, style, script, and the header with its facts
case      one image with its answers: what is shown of it, in which order
viewer    the picture to explore, of a case
plots     figures over many images
charts    several runs on two axes
figures   pixels and masks as PNG, JPEG and SVG; knows no page
style.css, viewer.js, volume.js, page.js    are written into each page, which asks the network for nothing
"""

"""The local server of the page that corrects segmentations; needs the extra ``serve``."""

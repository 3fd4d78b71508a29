"""Images -> descriptors -> neighbours."""

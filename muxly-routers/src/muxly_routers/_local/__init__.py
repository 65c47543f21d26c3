"""Files and folders on this machine, written so that nothing is ever half there."""

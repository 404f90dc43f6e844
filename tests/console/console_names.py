"""What tests of the console share by name."""

from dsp.console.access import ALL, Identity

PASSWORD = "correct horse battery"
OWNER = Identity(0, "setup", {ALL: "owner"})

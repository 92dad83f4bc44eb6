"""The Luigi tasks: one file per stage, in the order of the data flow, and the wrapper tasks above them."""

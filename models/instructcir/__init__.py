"""InstructCIR: a network that reads an image in the light of a text, and how it is trained."""

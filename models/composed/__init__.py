"""Systems that read a reference image and a text into one vector, which gallery vectors answer."""

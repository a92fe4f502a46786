"""What a robot's sensors say, on the policy's clock: rings by stamp, windows without gaps."""

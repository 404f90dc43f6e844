"""Pure control kernels: win curve, shading, pacing."""

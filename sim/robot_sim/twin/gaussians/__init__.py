"""Bodies that carry Gaussians, drawn differentiably, so that pictures correct a twin (Embodied Gaussians).

How the parts meet::

    MuJoCo model --sampling--+
                             +--> GaussianBody (body frame) --renderer--> picture --+
    posed pictures --scan----+                                                      +--> photometric --> pose, wrench
                                        cell's cameras ----------> observed picture-+

`cloud` holds the Gaussians and their files, `sampling` covers the geoms of a model with them, `scan` fits them to
posed pictures. `renderer` draws them in torch; `photometric` compares and says how a body has to move. Two things are
made of that: `image_poses` turns pictures into observed poses with covariance, which the twin filters like any other
observation, and `image_correction` registers the correction ``images``, per-Gaussian virtual forces as published in
"Physically Embodied Gaussian Splatting" (Abou-Chakra et al. 2024, arXiv 2406.10788) and used in Real-is-Sim
(arXiv 2504.03597). `docs/twin-images.md` says what was measured.

This package is made of torch tensors; nothing else in the twin imports it.
"""

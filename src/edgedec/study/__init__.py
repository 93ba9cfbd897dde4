"""The question of "Return of the Encoder" (arXiv 2501.16273), asked on this device.

`study` measures an encoder-decoder and a decoder-only model of equal size; `render` shows the
result.
"""

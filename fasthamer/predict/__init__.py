"""Hands in images, for users of a trained model: `from fasthamer.predict import HandMesh`, or from `fasthamer`.

hands = HandMesh("mobilenetv3_l")("image.jpg")             # or "embedded", "hamer", "wilor", "runs/mine", x.onnx
hands.vertices, hands.keypoints_2d                         # metres; pixels of the image
hands.save("hands.glb")                                    # or .json, .npz, .obj, .ply
for hand in hands:
    print(hand.side, hand.score, hand.to("mediapipe").joints)

docs/outputs.md describes every field. An exported .onnx or .xml file needs neither torch nor smplx. This is the one
package inside `fasthamer` that imports students and teachers: it opens them, so it stands above them.
"""

from fasthamer.predict.camera import Camera
from fasthamer.predict.hands import HandResult, Hands
from fasthamer.predict.mano import ManoArrays
from fasthamer.predict.model import HandMesh
from fasthamer.predict.opening import open_model
from fasthamer.predict.orders import OrderedJoints

__all__ = ["Camera", "HandMesh", "HandResult", "Hands", "ManoArrays", "OrderedJoints", "open_model"]

"""How the embedded hand is made: skeleton, implicit surface, mesh, skinning, shapes, correctives."""

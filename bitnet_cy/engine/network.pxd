from libc.stdint cimport uint8_t

from bitnet_cy.engine.native cimport bn_layer, bn_linear, bn_matrix, bn_network


cdef class Network:
    cdef bn_network native
    cdef bn_layer *layers
    cdef double[::1] frequencies
    cdef double[::1] factors
    cdef dict owned
    cdef readonly object shape
    cdef readonly object screen
    cdef readonly str layout
    cdef readonly dict parts
    cdef readonly Py_ssize_t nbytes
    cdef readonly Py_ssize_t mapped_nbytes

    cdef _set_sizes(self)
    cdef _set_ropes(self, ropes)
    cdef _set_layer(self, bn_layer *native, layer, int i)
    cdef _set_norms(self, bn_layer *native, layer, int i)
    cdef const float *_optional(self, layer, name, n, int i) except? NULL
    cdef const float *_floats(self, array, n, name) except NULL
    cdef _set_linear(self, bn_linear *native, ternary, rows, cols, name)
    cdef _set_scale(self, bn_linear *native, scale, rows, cols, name)
    cdef _set_scales(self, bn_linear *native, scales, rows, cols, name)
    cdef _set_matrix(self, bn_matrix *native, matrix, name)
    cdef const uint8_t *_bytes(self, array, n, name, part) except NULL
    cdef _keep(self, array, part)

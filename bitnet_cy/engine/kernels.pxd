from bitnet_cy.engine.native cimport bn_kernels

cdef const bn_kernels *active_kernels() noexcept nogil
cdef const bn_kernels *scalar_kernels() noexcept nogil
cdef bint has_wide() noexcept nogil

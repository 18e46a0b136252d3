# The targets <package>__rosidl_generator_py export the Python and NumPy include folders of the machine they were built on,
# although the generator gives every target it makes the right ones. Two things go wrong with that outside a ROS
# installation, and both functions change nothing that anybody needs.
#
# Call both after rosidl_generate_interfaces, which finds further message packages itself.

# CMake refuses imported targets whose include folders do not exist, as those of message packages from PyPI.
function(drop_missing_includes)
  get_property(_targets DIRECTORY PROPERTY IMPORTED_TARGETS)
  foreach(_target IN LISTS _targets)
    if(NOT _target MATCHES "__rosidl_generator_py$")
      continue()
    endif()
    get_target_property(_folders ${_target} INTERFACE_INCLUDE_DIRECTORIES)
    if(NOT _folders)
      continue()
    endif()
    set(_present "")
    foreach(_folder IN LISTS _folders)
      if(_folder MATCHES "\\$<" OR IS_DIRECTORY "${_folder}")
        list(APPEND _present "${_folder}")
      endif()
    endforeach()
    set_target_properties(${_target} PROPERTIES INTERFACE_INCLUDE_DIRECTORIES "${_present}")
  endforeach()
endfunction()

# CMake refuses to export a target with include folders inside the source tree, where the virtual environment may be.
function(keep_includes_local target)
  get_target_property(_folders ${target} INTERFACE_INCLUDE_DIRECTORIES)
  set(_local "")
  foreach(_folder IN LISTS _folders)
    if(_folder MATCHES "\\$<")
      list(APPEND _local "${_folder}")
    elseif(_folder)
      list(APPEND _local "$<BUILD_INTERFACE:${_folder}>")
    endif()
  endforeach()
  set_target_properties(${target} PROPERTIES INTERFACE_INCLUDE_DIRECTORIES "${_local}")
endfunction()

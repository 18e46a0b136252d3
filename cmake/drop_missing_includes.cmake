# Message packages from PyPI export the Python and NumPy include folders of the machine they were built on, and CMake
# refuses imported targets whose include folders do not exist. Nobody needs those folders: every target that the generator
# makes gets the right ones. On a ROS installation all folders exist and this changes nothing.
#
# Call it after rosidl_generate_interfaces, which finds further message packages itself.
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

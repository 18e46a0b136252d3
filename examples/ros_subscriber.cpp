// Listen to the keypoints of the node `align`. In a package that depends on rclcpp and semalign3d_ros.
#include <memory>

#include <rclcpp/rclcpp.hpp>
#include <semalign3d_ros/msg/semantic_keypoints.hpp>

using SemanticKeypoints = semalign3d_ros::msg::SemanticKeypoints;

class KeypointListener : public rclcpp::Node {
public:
  KeypointListener() : Node("keypoint_listener") {
    subscription_ = create_subscription<SemanticKeypoints>(
      "/semalign3d/keypoints", rclcpp::SensorDataQoS(), [this](const SemanticKeypoints & message) {hear(message);});
  }

private:
  void hear(const SemanticKeypoints & message) {
    if (!message.found) {return;}
    for (const auto & keypoint : message.keypoints) {
      RCLCPP_INFO(get_logger(), "%s: %.3f %.3f %.3f", keypoint.name.c_str(), keypoint.position.x, keypoint.position.y, keypoint.position.z);
    }
  }

  rclcpp::Subscription<SemanticKeypoints>::SharedPtr subscription_;
};

int main(int argc, char ** argv) {
  rclcpp::init(argc, argv);
  rclcpp::spin(std::make_shared<KeypointListener>());
  rclcpp::shutdown();
}
